"""What several tests use: small images, models, judges and machines."""
