"""Pages for one pair of eyes on this machine: captions to edit.

`site` is the door that a browser goes through; `captions` and `tables` read and write captions; `captions_page` is what it may ask.
"""
