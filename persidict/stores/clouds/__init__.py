"""Objects in the clouds whose official libraries speak for them: Azure and Google."""
