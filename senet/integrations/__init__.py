"""What connects to somebody else's software, each in a file of its own.

The core never imports one: it is loaded by the name that the user gives, see ``senet.plugins``.
"""
