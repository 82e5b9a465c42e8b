"""What operators run: replay a recording, warm the kernel cache, look into files and regions."""
