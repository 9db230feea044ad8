"""Runs in the guest: `as_user.py USER LIMIT PROGRAM …` runs a program's `main` as USER, who may lock LIMIT bytes.

It is imported before, as the user may not be allowed to read all of Python.
"""

import os
import pwd
import resource
import runpy
import sys

import ixy.path  # noqa: F401 (as programs do when they are imported)

user, limit, program, *arguments = sys.argv[1:]
main = runpy.run_path(program)["main"]
entry = pwd.getpwnam(user)
resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(limit), int(limit)))
os.setgroups([])
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
main(*arguments)
