"""Days as people say them, times with seconds on a 24-hour clock; the site's zone is UTC."""

DATE_FORMAT = "j M Y"
DATETIME_FORMAT = "j M Y, H:i:s"
TIME_FORMAT = "H:i:s"
