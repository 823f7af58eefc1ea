"""Verify what a Haldir server recorded, without Haldir.

This program follows the document `ledger-format.md` and nothing else: it shares no code with
the server that writes ledgers, so that neither can hide a mistake of the other. The numbers in
the comments ("section 7, step 3") are those of the document. The modules go the same way as
the document does; read them in this order:

    verdict     what can come out
    primitives  section 2     hashes, and what is signed
    entry       sections 3, 4 entries, and the events in them
    tree        sections 6, 10 the tree, and paths in it
    keys        section 15    which keys are trusted: named ones, and those that a root certified
    note        section 9     checkpoints
    stream      section 7     one stream, entry by entry
    lines       section 8     a line of JSON, read without leeway
    export      section 8     ledger exports, whole and in part
    proof       section 11    proof files
    tiles       section 12    folders of tiles
    tree_head   section 13    signed tree heads
    trail       section 14    exports of the audit trail, with their manifest
    cli                       the command line
"""
