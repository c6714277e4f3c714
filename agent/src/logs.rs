//! A run's log on the agent's disk, from the pipe to the session.
