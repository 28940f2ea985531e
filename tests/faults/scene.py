"""Who there is and what they share: the data that a run of the convergence test begins with.

Some of it is private and marked: `canary-<user>` stands in every text of a user's private rows and
`canary-column` in a column that nobody may select. Whoever else receives such bytes has been told
a secret.
"""

import random
import uuid
from dataclasses import dataclass, field

from tests.faults.world import World

USERS = 8
SHARED_WORKSPACES = 4
SHARED_NOTEBOOKS = 2

HIDDEN_COLUMN = """
alter table public.tasks add column internal_note text not null default 'canary-column';
revoke select on public.tasks from authenticated;
grant select (
    id, board_id, title, description, status, priority, assignee_id, due_date, tags, order_key,
    metadata, created_by, created_at, updated_at, deleted, version
) on public.tasks to authenticated;
select sync.refresh('public.tasks');
"""


@dataclass
class Scene:
    """Ids by kind. `fixed` are never deleted for good, moved or given away: counters and secrets.

    `shared` and `private` hold workspaces, with their owners.
    """

    rng: random.Random
    users: list[str] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)
    shared_notebooks: dict[str, str] = field(default_factory=dict)
    private: dict[str, str] = field(default_factory=dict)
    private_notebooks: dict[str, str] = field(default_factory=dict)
    boards: dict[str, str] = field(default_factory=dict)
    private_boards: dict[str, str] = field(default_factory=dict)
    counters: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    private_tasks: dict[str, str] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)

    def new_id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    async def build(self, world: World) -> None:
        """Makes the data, as plain SQL."""
        await world.rows(HIDDEN_COLUMN)
        await world.rows("set synchronous_commit = off")
        self.users = [self.new_id() for _ in range(USERS)]
        for number in range(SHARED_WORKSPACES):
            owner = self.users[number]
            members = self.rng.sample([u for u in self.users if u != owner], self.rng.randint(3, 5))
            workspace = await self._workspace(world, owner, members, f"shared {number}")
            self.shared[workspace] = owner
            boards = [await self._board(world, workspace, owner, "board") for _ in range(2)]
            for board in boards:
                self.boards[board] = workspace
                tasks = [await self._task(world, board, owner, "task") for _ in range(6)]
                self.tasks += tasks
                await self._comments(world, tasks, owner)
            self.counters.append(await self._task(world, boards[0], owner, "counter"))
        for number in range(SHARED_NOTEBOOKS):
            owner = self.users[-1 - number]
            members = self.rng.sample([u for u in self.users if u != owner], 4)
            notebook = await self._notebook(world, owner, members, f"shared {number}", 4)
            self.shared_notebooks[notebook] = owner
        for user in self.users:
            canary = f"canary-{user}"
            workspace = await self._workspace(world, user, [], canary)
            board = await self._board(world, workspace, user, canary)
            self.private[workspace] = user
            self.private_boards[board] = user
            tasks = [await self._task(world, board, user, canary) for _ in range(3)]
            self.private_tasks.update(dict.fromkeys(tasks, user))
            await self._comments(world, tasks, user, canary)
            self.private_notebooks[await self._notebook(world, user, [], canary, 2)] = user
        self.fixed = {*self.counters, *self.private_tasks}
        await world.rows("reset synchronous_commit")

    async def _workspace(self, world: World, owner: str, members: list[str], name: str) -> str:
        made = self.new_id()
        await world.rows(
            "insert into public.workspaces (id, name, owner_id, member_ids)"
            " values (%s, %s, %s, to_jsonb(%s::text[]))",
            [made, name, owner, members],
        )
        return made

    async def _board(self, world: World, workspace: str, owner: str, name: str) -> str:
        made = self.new_id()
        await world.rows(
            "insert into public.boards (id, workspace_id, name, created_by)"
            " values (%s, %s, %s, %s)",
            [made, workspace, name, owner],
        )
        return made

    async def _task(self, world: World, board: str, owner: str, title: str) -> str:
        made = self.new_id()
        await world.rows(
            "insert into public.tasks (id, board_id, title, description, created_by)"
            " values (%s, %s, %s, %s, %s)",
            [made, board, title, title, owner],
        )
        return made

    async def _comments(
        self, world: World, tasks: list[str], author: str, content: str = "first"
    ) -> None:
        await world.rows(
            "insert into public.comments (task_id, content, author_id)"
            " select t, %s, %s from unnest(%s::uuid[]) t",
            [content, author, tasks],
        )

    async def _notebook(
        self, world: World, owner: str, members: list[str], name: str, notes: int
    ) -> str:
        made = self.new_id()
        await world.rows(
            "insert into public.notebooks (id, name, owner_id, shared_with)"
            " values (%s, %s, %s, to_jsonb(%s::text[]))",
            [made, name, owner, members],
        )
        await world.rows(
            "insert into public.notes (notebook_id, title, content, created_by)"
            " select %s, %s, %s, %s from generate_series(1, %s)",
            [made, name, name, owner, notes],
        )
        return made

    def interesting_keys(self, user: str, some_tasks: list[str]) -> list[str]:
        """Keys a user might want, of what he can read, could read, and never will."""
        foreign_board = self.rng.choice(list(self.private_boards))
        return [
            "tasks",
            "comments",
            "boards",
            "workspaceMembers",
            f"tasks?assigneeId={user}",
            f"tasks?boardId={foreign_board}",
            *(f"boards?workspaceId={workspace}" for workspace in (*self.shared, *self.private)),
            *(f"workspaceMembers?workspaceId={workspace}" for workspace in self.shared),
            *(f"workspaces:{workspace}" for workspace in self.shared),
            *(f"tasks?boardId={board}" for board in self.boards),
            *(f"notes?notebookId={n}" for n in (*self.shared_notebooks, *self.private_notebooks)),
            *(f"tasks:{task}" for task in (*some_tasks, *self.counters)),
            *(f"comments?taskId={task}" for task in (*some_tasks, *self.counters)),
        ]
