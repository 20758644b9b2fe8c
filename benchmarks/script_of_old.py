# ruff: noqa: INP001, PTH103, PTH107, PTH118, PTH119, PTH123, PTH202, PTH207 - written as such scripts were
"""The script that people wrote before, in spirit: everything into lists, a connection and a row per file.

.venv/bin/python benchmarks/script_of_old.py ROOT BACKUPS POSTGRES_URI
"""

import glob
import json
import os
import shutil
import sys
import time

import psycopg2

DAYS = {"completed": 90, "failed": 14}


def main() -> None:
    """Clean one flat directory."""
    root, backups, database = sys.argv[1:]
    os.makedirs(backups)
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE cleanup_audit (path TEXT, bytes BIGINT, executed_at TIMESTAMPTZ DEFAULT now())")
    connection.close()
    for path in glob.glob(os.path.join(root, "operation_*.json")):
        with open(path, encoding="utf-8") as file:
            operation = json.load(file)
        if time.time() - operation["end_time"] < DAYS[operation["status"]] * 86_400:
            continue
        size = os.path.getsize(path)
        shutil.copy2(path, os.path.join(backups, os.path.basename(path) + ".backup"))
        os.remove(path)
        connection = psycopg2.connect(database)
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO cleanup_audit (path, bytes) VALUES (%s, %s)", (path, size))
        connection.close()


if __name__ == "__main__":
    main()
