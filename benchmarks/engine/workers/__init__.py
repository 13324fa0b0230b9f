"""One program an engine, which may run in an environment of its own: these files import nothing of the project but
`pipe`, and that by its folder."""
