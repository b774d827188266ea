"""Parts as an earlier version wrote them, or somebody else: without checksums."""

import pyarrow as pa

from segpipe.warehouse.checked import FOOTER


def unsealed(schema: pa.Schema) -> pa.Schema:
    """The schema of a part that was read, without the digest of that part's footer."""
    kept = {key: value for key, value in (schema.metadata or {}).items() if key != FOOTER}
    return schema.with_metadata(kept)
