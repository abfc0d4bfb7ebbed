"""The paper workspace: profiles, their stages and stores, tables, figures, report and explorer."""
