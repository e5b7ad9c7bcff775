"""The course's steps and searches, cross-validation, and label errors."""
