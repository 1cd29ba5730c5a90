"""Who may call the coordinator: its authority, who it let in, and what each may do."""
