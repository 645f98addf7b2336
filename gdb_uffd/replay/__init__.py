"""What is run: the vessel (a rebuilt process) and the diversion (its effects, kept or undone).

It imports `native`, `trace`, `arch` and `protocol`, never `server`.  From below, each may import
those before it: policy's table, policy and identity; regions and watch; vessel, the only file that
names a field of struct vessel or struct pager; what follows a run in it (layout, breakpoints,
state, circle, lazy, policy's words); calls, jumps, report; execution; attribute; detail, account;
rerun's log, clone and last run; diversion; rerun's first_touch and play, attribute's heap_report.
"""
