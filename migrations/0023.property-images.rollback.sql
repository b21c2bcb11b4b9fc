drop table property_images;
