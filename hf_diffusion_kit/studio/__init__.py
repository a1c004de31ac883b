"""Pages for one pair of eyes on this machine: captions to edit, a trained adapter to try.

`site` is the door that both go through; `captions` and `tables` read and write captions, `drawing` draws pictures; `*_page` is what a
browser is given.
"""
