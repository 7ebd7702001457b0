"""CPU and DRAM energy: RAPL, or an estimate where no meter exists."""
