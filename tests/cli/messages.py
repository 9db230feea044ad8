"""What commands say on standard error."""

COMPILING = "ixy: compiling the data path, which takes some time once\n"


def complaints(errors: str) -> str:
    """All of it, but for how long compiling takes: that is the machine's to say."""
    return "".join(line for line in errors.splitlines(keepends=True) if line != COMPILING)
