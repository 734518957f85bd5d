-- ModelExport keeps the rules of kstatus: the conditions Ready, Reconciling and Stalled, and status.observedGeneration.
-- The table of its states is in docs/operator.md, the code that writes them in modelexport_operator/status/conditions.py.

local function health(status, message)
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", "Pending deletion")
end

local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", "Waiting for the operator to see this version of the spec")
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is_true(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

local ready = conditions["Ready"]
if ready == nil then
  return health("Progressing", "Waiting for the operator to write the conditions")
end
if is_true("Stalled") then
  return health("Degraded", conditions["Stalled"].message)
end
if is_true("Reconciling") then
  return health("Progressing", conditions["Reconciling"].message)
end
if is_true("Ready") then
  return health("Healthy", ready.message)
end
if ready.reason == "Suspended" then
  return health("Suspended", ready.message)
end
return health("Progressing", ready.message)
