"""What a teacher says, for a student: live, or recorded once and read back."""

from limbeck.data.signals.description import Description, read_description, shard_paths
from limbeck.data.signals.opening import LiveTeacher, open_teacher
from limbeck.data.signals.reading import RecordedTeacher, num_kept

__all__ = [
    "Description", "LiveTeacher", "RecordedTeacher", "num_kept", "open_teacher",
    "read_description", "shard_paths",
]  # fmt: skip
