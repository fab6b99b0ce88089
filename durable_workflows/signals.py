"""What the app tells about itself, always after the commit that made it true.

Public: `workflow_recovered`. Receivers run by `send_robust`: one that raises is logged
and changes nothing.

`workflows_ended` and `workflows_ready` join the verbs of people (models) to the
engine above them: whoever cancelled or resumed rows has waiters to wake.
"""

from django.dispatch import Signal

workflow_recovered = Signal()  # workflow_id, name, recoveries

workflows_ended = Signal()  # using, rows: [(id, workflow_id, parent id or None)]
workflows_ready = Signal()  # using, queues
