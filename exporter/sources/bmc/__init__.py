"""The meters of the machine as a whole: its BMC, by Redfish or IPMI."""
