"""Programs for developers: the local server, `make predict`, the emulator, generators of files."""
