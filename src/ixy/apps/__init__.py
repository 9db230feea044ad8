"""The programs behind the command line. Each uses devices as any other program would."""
