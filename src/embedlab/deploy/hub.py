"""Upload a model folder to the Hugging Face hub, after a scan for training texts, keys and folders of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.errors import ModelError
from embedlab.models.evidence import FILE, read, require_same_files
from embedlab.models.folder import MODULES
from embedlab.scan import ScanHit, scan_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SHOWN_FINDINGS = 3


@dataclass(frozen=True)
class Upload:
    """What an upload would send.

    Attributes:
        folder: the model folder.
        sizes: path in the folder -> bytes.
        findings: what must not leave this machine.
    """

    folder: Path
    sizes: dict[str, int]
    findings: list[ScanHit]

    def require_clean(self) -> None:
        """Check that nothing was found.

        Raises:
            ModelError: a file holds a training text, a key or a folder of this machine, or cannot be looked into.
        """
        if self.findings:
            listed = "; ".join(map(str, self.findings[:SHOWN_FINDINGS]))
            more = f" and {len(self.findings) - SHOWN_FINDINGS} more" if len(self.findings) > SHOWN_FINDINGS else ""
            remedy = "Remove this from the files, or move files that the model does not need out of the folder"
            raise ModelError(f"the folder is not uploaded: {listed}{more}", remedy=remedy, file=self.folder)


def prepare_upload(folder: Path, texts: Iterable[str]) -> Upload:
    """List the files of a model folder, without hidden ones, and scan them.

    Args:
        folder: the model folder.
        texts: training texts to look for.

    Raises:
        ModelError: the folder has no model, or its evidence belongs to another model.
    """
    if not (folder / MODULES).is_file():
        remedy = "Name a folder that embedlab or sentence-transformers saved"
        raise ModelError(f"there is no model: {MODULES} is missing", remedy=remedy, file=folder)
    if (folder / FILE).exists():
        require_same_files(read(folder), folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(folder))]
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    return Upload(folder, sizes, scan_folder(folder, texts, files=files))


def _is_hidden(path: Path) -> bool:
    return any(name.startswith(".") or name == "__pycache__" for name in path.parts)


def push(upload: Upload, repo_id: str, *, private: bool = True, api: HfApi | None = None) -> str:
    """Upload a model folder and return its address.

    Exactly the files that were scanned are sent. The token is that of `hf auth login`, or `HF_TOKEN`.

    Args:
        upload: from `prepare_upload`.
        repo_id: `OWNER/NAME`; created if needed.
        private: whether only you and your organisation may see it.
        api: the client; one with the settings of the environment when not given.

    Raises:
        ModelError: something was found, the repository is public although `private` is set, the name is not valid, or
            the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
    from huggingface_hub.errors import HTTPError as NetworkError  # type: ignore[attr-defined]  # of its HTTP library

    upload.require_clean()
    api = api or HfApi()
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if private and not api.repo_info(repo_id).private:
            problem = f"{repo_id} exists and is public"
            raise ModelError(problem, remedy="Choose another name, or add --public", field="repository")
        sent = api.upload_folder(
            repo_id=repo_id,
            folder_path=str(upload.folder),
            allow_patterns=[_literal(name) for name in upload.sizes],
            commit_message="Upload model with evidence",
        )
    except HFValidationError:
        remedy = "Write OWNER/NAME with letters, digits, - and _"
        raise ModelError(f"{repo_id!r} is not the name of a repository", remedy=remedy, field="repository") from None
    except LocalTokenNotFoundError:
        raise _no_access("there is no token for the hub") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise _no_access(f"the hub refuses the upload to {repo_id} (status {status})") from None
        raise _unreachable(f"status {status}") from None
    except OfflineModeIsEnabled:
        raise _unreachable("HF_HUB_OFFLINE is set") from None
    except (NetworkError, OSError) as error:
        raise _unreachable(type(error).__name__) from None
    return str(getattr(sent, "commit_url", sent))


def _literal(name: str) -> str:
    """A pattern that matches only this name."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _no_access(problem: str) -> ModelError:
    return ModelError(problem, remedy="Log in with `hf auth login`, or set HF_TOKEN to a token that may write")


def _unreachable(reason: str) -> ModelError:
    problem = f"the hub cannot be reached ({reason})"
    return ModelError(problem, remedy="Nothing was published. Connect and run the command again")
