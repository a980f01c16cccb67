"""Looking into an image: what stands at an address, in any layer. Writes nothing but what is taken out."""
