"""Uploading a trained model to the hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled


def push_folder(folder: Path, name: str, *, private: bool) -> str:
    """Uploads a model's folder with its card.

    Args:
        folder: The model's.
        name: `owner/name` of the repository, made if there is none.
        private: Whether a new repository is private.

    Returns:
        The repository's address.

    Raises:
        ValueError: If the hub refuses or cannot be reached; the model stays where it is.
    """
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        commit = api.upload_folder(repo_id=name, folder_path=folder)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise ValueError(
            f"{folder} could not be uploaded to {name!r} ({type(error).__name__}: "
            f"{(str(error).splitlines() or [''])[0]}). The model is kept there: log in with `hf "
            "auth login`, check the name and the connection, and run the same command with --resume"
        ) from error
    return str(commit.repo_url)
