"""Files: those that the shop uploads, and those that the gateway makes."""

from . import wire
from .books import Session, new_id
from .wire import Doc, Request, invalid

MAX_BYTES = 5_000_000  # docs.stripe.com/file-upload, for dispute_evidence
UPLOAD: wire.Spec = {
    "file": wire.upload,
    "purpose": wire.choice("dispute_evidence"),
    "expand": wire.strings,
}


def create_file(session: Session, request: Request) -> Doc:
    given = wire.check_params(request.params, UPLOAD, required=("file", "purpose"))
    upload: wire.Upload = given["file"]
    if not 0 < len(upload.content) <= MAX_BYTES:
        raise invalid(f"A file has 1 to {MAX_BYTES} bytes.", "file")
    file = store_file(session, request, upload.content, purpose=given["purpose"], name=upload.name)
    return session.put(file)


def store_file(session: Session, request: Request, content: bytes, *, purpose: str, name: str = "") -> Doc:
    """Keep the content; the object that names it."""
    identity = new_id("file")
    # As text in which each character is a byte: the column is older than uploads.
    session.db.execute("INSERT INTO files VALUES (?, ?)", (identity, content.decode("latin-1")))
    return {
        "id": identity,
        "object": "file",
        "created": session.now,
        "expires_at": None,
        "filename": name or f"{identity}.csv",
        "links": {"object": "list", "data": [], "has_more": False, "url": f"/v1/file_links?file={identity}"},
        "purpose": purpose,
        "size": len(content),
        "title": None,
        "type": (name or ".csv").rpartition(".")[2],
        "url": f"{request.base_url}/v1/files/{identity}/contents",
    }


def read_content(session: Session, identity: str) -> bytes:
    row = session.db.execute("SELECT content FROM files WHERE id = ?", (identity,)).fetchone()
    if row is None:
        raise invalid(f"No such file: '{identity}'", "id", "resource_missing", status=404)
    return str(row[0]).encode("latin-1")


def read_upload(session: Session, identity: str, *, purpose: str = "", param: str = "id") -> bytes:
    """Raises ApiError for a file that was not uploaded for this purpose."""
    file = session.get(identity, "file", param)
    if purpose and file["purpose"] != purpose:
        raise invalid(f"The file {identity} was not uploaded with the purpose {purpose}.", param)
    return read_content(session, identity)
