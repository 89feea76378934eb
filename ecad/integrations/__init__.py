"""Cache schedules in other programs that make pictures: one module or folder a host."""
