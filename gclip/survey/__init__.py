"""Norms watched without clipping, and replayed: which threshold would clip how often?"""
