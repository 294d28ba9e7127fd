"""What can be known before anything changes: channel groups, their weights as A and C, what channels cost."""
