"""A reference interpreter of saved mlprograms, since Core ML itself is part of macOS only.

It is no Core ML: what it gives is labelled "interpreted (not Core ML)", and its time says nothing.
"""
