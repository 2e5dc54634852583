-- A pass is for one user of the machine, by number. One without a number, given before, is for whoever has the name here.
ALTER TABLE passes ADD COLUMN uid INTEGER CHECK (uid >= 0);
