"""Readings of the machine: processes, memory, power, clocks and disks."""
