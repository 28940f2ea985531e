-- sync_internal.policy_calls is for its owner's definer functions alone: row level security is on and there is no policy.
alter table sync_internal.policy_calls enable row level security;
