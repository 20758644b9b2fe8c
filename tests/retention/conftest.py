"""The rules' tests are fast but the machines that run them are not always; a deadline would only fail on a busy one."""

from hypothesis import settings

settings.register_profile("retention", deadline=None)
settings.load_profile("retention")
