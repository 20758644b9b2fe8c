"""Race-free file primitives: names, walking by descriptor, identity, open-file checks, quarantine. Knows no policy."""
