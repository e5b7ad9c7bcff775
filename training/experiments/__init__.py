"""The course's steps, searches, studies and label errors."""
