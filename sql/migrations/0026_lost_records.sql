-- Purpose: whoever comes back is told which records were deleted or moved out of his sight, where he may know it.
-- Lock: none that anybody waits for. Breaking: no.

-- Their results have another column; the functions of this version follow.
-- squawk-ignore ban-drop-function
drop function if exists sync_internal.missed_near(xid8, xid8[], text[], text[], jsonb);
-- squawk-ignore ban-drop-function
drop function if exists sync_internal.missed_far(xid8, xid8[], text[], text[], jsonb, text[], bigint);
-- The class a row has left, if it has left one, takes the place of a mere mark.
-- squawk-ignore ban-drop-column
alter type sync_internal.missed_change drop attribute moved, add attribute class_before text;
