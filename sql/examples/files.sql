-- Files of tasks and of notes. Their policies follow the parent's: who reads a task reads its files, who may edit it adds
-- and deletes them.

select sync.files('public.task_files', p_parent => 'public.tasks', p_column => 'task_id');
select sync.files('public.note_files', p_parent => 'public.notes', p_column => 'note_id');
