"""Boot menus as text: where their kernel lines stand and what arguments these have. Bytes in, values out.

A room of its own and not a part of :mod:`cosremaster.boot`: those are records of fixed form, these are languages.
"""
