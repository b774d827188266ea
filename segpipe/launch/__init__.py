"""How a job starts: session, Java, environment, YARN, what is submitted, what is refused, what comes back."""
