"""Parse boot menus as text: find their kernel lines and the arguments of these. Bytes in, values out.

A package of its own and no part of :mod:`cosremaster.boot`, which has records of fixed form; menus have languages.
"""
