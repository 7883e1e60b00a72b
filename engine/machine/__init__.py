"""What this machine allows: cores, memory, and room in /dev/shm, as containers and affinity limit them."""
