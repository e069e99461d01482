"""ARM without a board: aarch64 programs and an aarch64 machine under qemu. README.md tells how."""
