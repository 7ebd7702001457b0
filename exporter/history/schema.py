"""The tables of the history's file: hourly growth of counters by series, and where each counter stood last."""

from __future__ import annotations

APPLICATION_ID = 0x41454548
"""``PRAGMA application_id`` of its files, so that no other program's database is taken for one."""

VERSION = 1
"""``PRAGMA user_version`` of its files."""

HOUR_SECONDS = 3600.0

TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE hours (hour INTEGER PRIMARY KEY, seconds REAL NOT NULL, folded INTEGER NOT NULL DEFAULT 0);
CREATE TABLE owners (id INTEGER PRIMARY KEY, family TEXT NOT NULL, labels TEXT NOT NULL, UNIQUE (family, labels));
CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  owner INTEGER NOT NULL REFERENCES owners,
  metric TEXT NOT NULL,
  labels TEXT NOT NULL,
  counter REAL,
  UNIQUE (owner, metric, labels)
);
CREATE TABLE growth (
  hour INTEGER NOT NULL, series INTEGER NOT NULL, amount REAL NOT NULL, PRIMARY KEY (hour, series)
) WITHOUT ROWID;
"""
"""An hour is Unix time divided by 3600. ``hours.seconds`` is the time of it in which the exporter ran,
``growth.amount`` is in the unit of the metric, labels are JSON lists of names and values, and ``series.counter`` is
NULL once there is no such counter."""
