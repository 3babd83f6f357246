"""How long things take, beside what a user would have without this project, and beside what the machine allows."""
