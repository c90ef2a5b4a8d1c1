"""From a question to a report: planning, budgets, the loop, executors, and judging from a store."""
