"""What a process has around it: progress, interrupts, its rank, texts for people."""
