"""The online endpoint: one file a client dialect."""
