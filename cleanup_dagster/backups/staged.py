"""A copy on its way into a store."""

from msgspec import Struct

from cleanup_dagster.retention.models import Frame


class Staged(Struct):
    """A copy that counts for nothing yet: the sha256 and the size of what was read of its file.

    A plain copy has a descriptor, an inode and a `part`, its name while staged; one in an archive has its place in the
    frame it is gathered for, and that `frame` once it was written.
    """

    sha256: str
    size: int
    inode: int = 0
    frame: Frame | None = None
    inner: int = 0
    fd: int = -1
    part: str = ""
