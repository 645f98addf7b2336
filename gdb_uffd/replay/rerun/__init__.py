"""The last call once more, in another process of the same snapshot: every write to one object
(`uffd why`), the first touch of each page (`uffd trace`)."""
